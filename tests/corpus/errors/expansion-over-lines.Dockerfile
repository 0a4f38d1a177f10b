FROM scratch
ENV A=1 \
    # the second
    B=a${C\
:=d}e
