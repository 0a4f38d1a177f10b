FROM scratch
ENV A="one
USER x
