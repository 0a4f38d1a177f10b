FROM alpine at build
