FROM scratch
COPY ok https://example.com/x /x
