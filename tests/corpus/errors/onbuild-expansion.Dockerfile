FROM scratch AS base
ONBUILD ENV A=${B:?give_B}
FROM base
USER ${C:?no C}
