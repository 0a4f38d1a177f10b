FROM scratch
ENV A=1 =2
ARG =3
