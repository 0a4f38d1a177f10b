FROM scratch
RUN --mount=type=cache,target=/c \
    # a remark
    --netwrok=none \
    make
