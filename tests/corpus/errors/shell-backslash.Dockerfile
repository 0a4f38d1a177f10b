FROM scratch
SHELL ["C:\x.exe"]
