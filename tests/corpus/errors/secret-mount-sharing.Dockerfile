FROM alpine
RUN --mount=type=secret,id=x,sharing=shared make
