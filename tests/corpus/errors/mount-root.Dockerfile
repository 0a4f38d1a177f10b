FROM alpine
RUN --mount=type=tmpfs,target=/ make
