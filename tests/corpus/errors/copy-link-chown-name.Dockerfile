FROM scratch
COPY --link --chown=app:app a /b
