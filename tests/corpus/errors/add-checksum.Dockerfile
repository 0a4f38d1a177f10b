FROM scratch
ADD --checksum=sha256:12 https://example.com/x /x
ADD --checksum=md5:12 a b /x
