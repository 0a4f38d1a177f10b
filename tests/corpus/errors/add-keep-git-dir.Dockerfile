FROM scratch
ADD --keep-git-dir=yes https://example.com/x.git /x
