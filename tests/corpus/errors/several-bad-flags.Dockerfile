FROM scratch
COPY --chwn=1 --link=perhaps --from --chmod=1 --chmod=2 a /b
