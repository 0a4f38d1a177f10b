FROM scratch
ENV 漢字=値 é=ü B ${😀}
