FROM scratch
ARG V=a-b
ENV A=${V#\y}
