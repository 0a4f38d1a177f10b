FROM scratch AS build
ENV A=1 B
WORKDIR /${A:?}
FROM scratch AS 1x
COPY --from=7 a /
USER
FROM build
EXPOSE x
COPY --from=build --chwon=1 a /
