FROM alpine
RUN --security=insecure true
RUN --network=host true
