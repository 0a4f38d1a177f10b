FROM scratch
COPY ["a", 1, "/b"]
