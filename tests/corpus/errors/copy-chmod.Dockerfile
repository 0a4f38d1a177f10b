FROM scratch
COPY --chmod=u+rwz a /b
