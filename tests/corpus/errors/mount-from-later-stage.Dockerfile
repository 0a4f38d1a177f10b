FROM alpine AS one
RUN --mount=from=two,target=/x true
FROM alpine AS two
FROM one
