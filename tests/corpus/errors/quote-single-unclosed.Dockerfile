FROM scratch
LABEL a=1 b='it''s' c=don't
