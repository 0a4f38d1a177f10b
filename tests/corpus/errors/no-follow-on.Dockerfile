FROM scratch
ENV A=${B:?no_B}
WORKDIR /${A:?no A}
VOLUME $A
USER ${C:?no C}
