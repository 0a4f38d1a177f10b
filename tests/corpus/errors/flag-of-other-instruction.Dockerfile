FROM scratch
ADD --from=x a /b
USER --name=x y
