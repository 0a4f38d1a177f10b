FROM scratch
COPY app
