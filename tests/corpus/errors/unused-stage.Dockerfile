FROM scratch AS unused
USER
ENV A=${B:?}
FROM scratch
