FROM scratch
RNU echo hi
