FROM scratch
COPY --chwn=1:1 a /b
