FROM scratch
COPY <<EOF /x
line 1
value: ${NOT_SET:?give a value}
EOF
