FROM alpine
RUN --mount=type=bind,target=/x,size=1g make
