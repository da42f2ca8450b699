// Figures are being computed: look again soon, except on a page that streams and will look by itself.
if (!document.querySelector("[data-live]")) setTimeout(() => location.reload(), 2000);
