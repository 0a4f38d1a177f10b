FROM alpine
RUN --security=secure true
