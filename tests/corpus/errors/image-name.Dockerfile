FROM Alpine:3:2
