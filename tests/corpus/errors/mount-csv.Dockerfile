FROM alpine
RUN --mount=type=bind,so\"urce make
