FROM alpine
RUN --mount=type=bind,target make
