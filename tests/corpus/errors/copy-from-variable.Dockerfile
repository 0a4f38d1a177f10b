ARG S
FROM alpine
COPY --from=$S /a /b
