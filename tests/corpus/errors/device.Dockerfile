FROM alpine
RUN --device=vendor/class=a true
