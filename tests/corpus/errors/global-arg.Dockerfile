ARG A=${B:?set B} C=1
ARG D=${A:?}
FROM alpine:${A}
FROM alpine:${E:?none}
