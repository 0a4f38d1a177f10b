FROM scratch
ENV A=x${B:-y
