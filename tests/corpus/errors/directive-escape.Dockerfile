# escape=%
FROM scratch
