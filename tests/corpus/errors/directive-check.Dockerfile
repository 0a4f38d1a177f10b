# check=skip=all;fail=true
FROM scratch
