#!/bin/busybox sh
exec /bin/busybox cat /hello.txt
