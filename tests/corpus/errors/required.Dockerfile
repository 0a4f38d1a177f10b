FROM scratch
ARG VERSION
ENV A=${VERSION:?no_version}
WORKDIR /${DIR:?no dir}
