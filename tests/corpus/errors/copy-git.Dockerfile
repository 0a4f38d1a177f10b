FROM scratch
COPY \
  ok \
  git@example.com:x/y.git \
  /x
