from mounted.part import WHERE
