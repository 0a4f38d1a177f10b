FROM alpine
RUN --mount=type=cache,\
target=/x,\
moed=755 make
