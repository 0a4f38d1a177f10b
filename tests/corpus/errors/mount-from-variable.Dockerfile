FROM alpine
ARG s
RUN --mount=type=bind,from=$s,target=/x make
