"use strict";
// Asks for a page that could not be shown until it can be, without taking it from whoever reads it meanwhile.

setInterval(async () => {
  const status = await fetch(location.href, { redirect: "error" }).then((answer) => answer.status, () => 503);
  if (status !== 503) location.reload();
}, 3000);
