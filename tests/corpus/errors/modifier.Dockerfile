FROM scratch
ENV A=x B=pre-${A^^}-post
