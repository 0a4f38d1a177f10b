FROM scratch
ENV A=${A:?need A}
