FROM alpine # the base
