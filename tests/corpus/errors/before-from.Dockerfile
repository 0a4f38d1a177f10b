# build it
RUN make
FROM scratch
CMD ["x"]
