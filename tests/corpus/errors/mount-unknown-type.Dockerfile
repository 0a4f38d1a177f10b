FROM alpine
RUN --mount=type=chache,target=/x make
